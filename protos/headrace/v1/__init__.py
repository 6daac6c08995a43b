"""Version 1 of the contract: generated modules, one a .proto file."""
