"""All wire spellings of the MMS API."""
