"""What happens to a data key over time: create, rotate, promote, rewrap, disable, destroy, restore.

Knows neither which database nor which KMS it talks to: both arrive as ports.
"""
