"""Knowledge: reading files, cutting them into chunks, embedding and finding them again."""
