"""Unit tests of mms.scoring."""
