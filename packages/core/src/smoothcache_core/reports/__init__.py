"""What policies cost and did to the samples, as values, text, pictures and a folder."""
