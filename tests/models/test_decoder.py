"""The decoder's parameters: tied or not, and as many as the formula says."""

from models.config import DecoderConfig
from models.flops import parameters
from models.initialization import build_decoder


def test_tied_embeddings_share_storage() -> None:
    shape = {
        "vocabulary_size": 32,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "key_value_heads": 1,
        "feed_forward_width": 24,
    }
    tied, untied = (build_decoder(DecoderConfig(tied_embeddings=value, **shape)) for value in (True, False))
    assert tied.output.weight is tied.tok_embeddings.weight
    assert untied.output.weight is not untied.tok_embeddings.weight
    assert [sum(p.numel() for p in decoder.parameters()) for decoder in (tied, untied)] == [
        parameters(decoder.config) for decoder in (tied, untied)
    ]
