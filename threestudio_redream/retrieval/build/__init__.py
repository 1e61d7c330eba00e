"""From a source of assets to an index: ingest, render, embed, assemble, in shards that can be killed."""
