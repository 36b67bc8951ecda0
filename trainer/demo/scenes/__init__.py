"""The demo world: flat shapes and short words on a light background, the prompts for them, and how to draw them."""
