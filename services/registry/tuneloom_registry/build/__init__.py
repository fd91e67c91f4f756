"""The build process: local paths in, local paths out. Only the proof needs torch.

In the build directory: `build.json`, `source/`, `base/`. Out: `out/`, `result.json`, `progress`.
"""
