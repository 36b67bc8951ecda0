"""The weights of Likestep's demo; the folders beside this file are what `common.places.models` finds."""
