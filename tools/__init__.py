"""Programs around the package: training of the embedded model, tables of recorded sessions, schemas."""
