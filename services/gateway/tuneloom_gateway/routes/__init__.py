"""One file per family of routes. Handlers contain no `try`: errors are answered at the edge."""

READ = ["GET", "HEAD"]
