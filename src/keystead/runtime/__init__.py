"""What the process itself gives: the clock, the background loop, single flight, and what a fork must renew."""
