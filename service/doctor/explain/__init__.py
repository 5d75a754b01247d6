"""Why a signature was refused: the usual mistakes, undone one at a time. Pure."""
