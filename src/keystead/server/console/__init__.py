"""The console: pages for people, over the same functions as REST and the command line."""
