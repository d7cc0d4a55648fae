"""Raw numbers: timed generations, their phases, memory and the state of the device. Nothing here judges."""
