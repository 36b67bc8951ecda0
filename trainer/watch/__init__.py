"""What looks at a round while it runs, and the alarm that ends it early."""
