"""How much anybody may ask of a server: requests, guesses at credentials, streams, and bytes that have not come whole."""
