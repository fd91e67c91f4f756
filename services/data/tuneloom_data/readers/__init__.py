"""One reader per row format: it knows its rows when it sees them and turns them into conversations.

What makes a conversation worth training on is not theirs to say: see `rules`.
"""
