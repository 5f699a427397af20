"""What a physician reads: one HTML file with the pictures, the numbers and a viewer."""
