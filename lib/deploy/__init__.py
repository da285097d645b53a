"""A finished run elsewhere: other images, bundles, a notebook without internet access."""
