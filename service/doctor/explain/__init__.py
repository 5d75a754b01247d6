"""Why a signature was refused: undoes common mistakes, one at a time. Pure."""
