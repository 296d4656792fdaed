"""Where samples come from: files, folders of images, functions; opened, checked and prepared, one at a time."""
