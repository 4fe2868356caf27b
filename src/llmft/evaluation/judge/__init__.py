"""A language model that scores answers: what it is asked, how its reply is read, and what is kept."""
