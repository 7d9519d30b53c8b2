"""Files that were broken at random, and whether the library takes them for what they are."""
