"""The forms of other systems, one file each: loaded when an importer of it is made."""
