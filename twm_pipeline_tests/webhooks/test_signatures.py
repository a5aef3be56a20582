from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import DeliveryError
from twm_pipeline.webhooks.signatures import verify_missive, verify_teamwork
from twm_pipeline_tests.webhooks.deliveries import (
    MISSIVE_SECRET,
    TEAMWORK_SECRET,
    Delivery,
    load_samples,
)

# Computed with `printf '%s' '{"id":1}' | openssl dgst -sha256 -hmac secret`.
BODY, KEY, DIGEST = b'{"id":1}', "secret", "03def589620c813f198fd03d7967e292b163ef0435ebf43071ce0e9519763cb7"
SIGNED = [sample for sample in load_samples() if sample.signature_header in sample.headers]


def verify(delivery: Delivery, body: bytes) -> None:
    header = delivery.headers[delivery.signature_header]
    if delivery.source == "teamwork":
        verify_teamwork(body, header=header, secret=TEAMWORK_SECRET)
    else:
        verify_missive(body, header=header, secret=MISSIVE_SECRET)


@pytest.mark.parametrize("sample", SIGNED, ids=lambda sample: sample.name)
def test_every_sample_is_signed_as_its_vendor_does(sample):
    verify(sample, sample.body)


@pytest.mark.parametrize("sample", SIGNED, ids=lambda sample: sample.name)
def test_one_changed_byte_breaks_the_signature(sample):
    body = bytearray(sample.body)
    body[len(body) // 2] ^= 1

    with pytest.raises(DeliveryError, match="signature") as refused:
        verify(sample, bytes(body))
    assert refused.value.status == 401


@pytest.mark.parametrize("header", [DIGEST, DIGEST.upper()], ids=["lower", "upper"])
def test_teamwork_signs_with_bare_digits_of_either_case(header):
    verify_teamwork(BODY, header=header, secret=KEY)


@pytest.mark.parametrize("header", [DIGEST, DIGEST.upper(), f"sha256={DIGEST}", f"sha256={DIGEST.upper()}"])
def test_missive_signs_with_or_without_a_prefix(header):
    verify_missive(BODY, header=header, secret=KEY)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "sha256=",
        DIGEST[:-1],
        DIGEST + "0",
        f"sha1={DIGEST}",
        f"sha256=sha256={DIGEST}",
        "é" * 64,
        "\x00" * 64,
        "\ud800" * 64,
        "０" * 64,
    ],
)
@pytest.mark.parametrize("verify_one", [verify_teamwork, verify_missive])
def test_what_is_no_signature_is_refused_and_breaks_nothing(verify_one, header):
    with pytest.raises(DeliveryError):
        verify_one(BODY, header=header, secret=KEY)


def test_teamwork_signs_without_a_prefix_only():
    with pytest.raises(DeliveryError):
        verify_teamwork(BODY, header=f"sha256={DIGEST}", secret=KEY)


@given(body=st.binary(), header=st.text(max_size=80))
def test_no_text_is_taken_for_a_signature(body, header):
    for verify_one in (verify_teamwork, verify_missive):
        with pytest.raises(DeliveryError):
            verify_one(body, header=header, secret=KEY)
