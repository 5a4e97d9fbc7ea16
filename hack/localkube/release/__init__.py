"""What a release consists of, without the images: packages, charts, SBOMs, notes. Two makes of one commit give the same bytes."""
