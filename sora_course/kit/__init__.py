"""What the course needs and does not teach: the captioned world, the judge, training, files, pictures and checks."""
