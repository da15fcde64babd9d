"""Where the stages run that need no other batch: in this process, or on the machines of a Ray cluster."""
