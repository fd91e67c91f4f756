"""Transforms: one version made from another by a child process, local paths in and local paths out.

The service prepares a workspace and reads its outcome (`preparation`, `outcomes`), the child runs one action of
`actions` in it. The service side imports neither numpy nor torch.
"""
