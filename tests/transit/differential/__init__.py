"""The same random requests to two servers, whose answers have to be alike."""
