"""What is a secret, and that it is masked wherever it occurs."""

import pytest

from tithe.evaluation import mask, masked, remember_secret, remember_secrets_of, without_secrets


@pytest.mark.parametrize(
    "text, expected",
    [
        ("s3://AKIA:s3cr3t@bucket/train.csv", "s3://bucket/train.csv"),
        ("s3://AKIA:ab/cd+ef@bucket/train.csv", "s3://bucket/train.csv"),
        ("cannot read https://token@host:8080/a.csv: no", "cannot read https://host:8080/a.csv: no"),
        ("hf://me:x@data and 'ftp://a:b@c/d'", "hf://data and 'ftp://c/d'"),
        ("https://host/a.csv?X-Amz-Signature=ab%2Fc&v=1", "https://host/a.csv?X-Amz-Signature=***&v=1"),
        ("https://host/a.csv?sv=1&sig=abc", "https://host/a.csv?sv=1&sig=***"),
        ("https://host/a?api_key=abc&AWSAccessKeyId=def", "https://host/a?api_key=***&AWSAccessKeyId=***"),
    ],
)
def test_urls_lose_their_keys(text, expected):
    assert mask(text) == expected
    assert mask(mask(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/path/user@name/train.csv",
        "https://host/a.csv?design=1&page=2",
        "s3://bucket/train.csv",
        "me@example.org",
        "runs/a@b/checkpoint-3",
        "the token of a word, and its key: value",
    ],
)
def test_other_text_stays(text):
    assert mask(text) == text


def test_what_is_remembered_is_masked_where_it_stands_alone():
    remember_secret("verysecret-1")
    assert mask("got 'verysecret-1' (verysecret-1)") == "got '***' (***)"
    assert mask("verysecret-123") == "verysecret-123"
    remember_secret("no")  # too short to be told from a word
    assert mask("no") == "no"


def test_variables_that_are_named_like_secrets_are_masked(monkeypatch, tmp_path):
    monkeypatch.setenv("OTHER_SERVICE_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("CLOUD_CREDENTIALS", str(tmp_path))
    assert mask(f"0123456789abcdef false {tmp_path}") == f"*** false {tmp_path}"


def test_options_lose_secrets_at_any_depth():
    options = {
        "anon": False,
        "key": "AKIAAKIA",
        "client_kwargs": {"aws_secret_access_key": "abcdefgh", "endpoint_url": "https://me:pw@host"},
        "headers": {"Authorization": "Bearer abcdefgh", "Accept": "text/csv"},
        "mirrors": [{"sas_token": "abcdefgh", "name": "eu"}],
    }
    assert without_secrets(options) == {
        "anon": False,
        "client_kwargs": {"endpoint_url": "https://host"},
        "headers": {"Accept": "text/csv"},
        "mirrors": [{"name": "eu"}],
    }
    remember_secrets_of({"headers": {"Authorization": "Bearer qwertz123"}, "name": "harmless-name"})
    assert mask("sent Bearer qwertz123 to harmless-name") == "sent *** to harmless-name"


def test_nested_values_are_masked():
    found = masked({"files": ["https://me:pw@host/a.csv", 3], "more": {"url": "s3://a:b@c"}, "none": None})
    assert found == {"files": ["https://host/a.csv", 3], "more": {"url": "s3://c"}, "none": None}
