"""Files that users write: read strictly, with one plain error for whatever is wrong with them."""
