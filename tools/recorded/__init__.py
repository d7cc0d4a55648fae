"""Tables and the cost model of recorded sessions, for the pages of this project."""
