"""The way in for everything else: names resolve to addresses of our own, which lead to them."""
