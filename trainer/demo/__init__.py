"""The demo's factory: the drawn world, and the scripts that train the model which ships."""
