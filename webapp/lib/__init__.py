"""What every app of the web app uses; it imports none of them."""
