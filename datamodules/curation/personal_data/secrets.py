"""Secrets in code and documents: keys of services, tokens, private keys.

Only what its issuer gave a form of its own (a prefix, a length, a check) is taken: any long string could be a
password, and masking every hash would take more from code than it gives. Forms as the issuers document them and as
gitleaks 8 has them.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator

from datamodules.curation.personal_data.kind import PersonalDataKind, Span, without_overlaps

API_KEYS = {
    "AWS access key": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    "GitHub token": r"gh[pousr]_[A-Za-z0-9]{36}",
    "GitHub fine-grained token": r"github_pat_[A-Za-z0-9_]{82}",
    "GitLab token": r"gl(?:pat|dt|rt|ptt|soat)-[A-Za-z0-9_\-]{20,64}",
    "Slack token": r"xox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z\-]{20,250}",
    "Slack app token": r"xapp-\d-[A-Z0-9]{8,20}-\d{8,20}-[a-z0-9]{32,128}",
    "Slack webhook": r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{43,70}",
    "Google API key": r"AIza[A-Za-z0-9_\-]{35}",
    "Google OAuth secret": r"GOCSPX-[A-Za-z0-9_\-]{28}",
    "Google OAuth token": r"ya29\.[A-Za-z0-9_\-]{30,512}",
    "Stripe key": r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,247}",
    "Stripe webhook secret": r"whsec_[A-Za-z0-9+/]{32,64}={0,2}",
    "OpenAI key": r"sk-(?:(?:proj|svcacct|admin)-)?[A-Za-z0-9_\-]{20,100}T3BlbkFJ[A-Za-z0-9_\-]{20,100}",
    "Anthropic key": r"sk-ant-[a-z]{3,8}\d{2}-[A-Za-z0-9_\-]{80,120}",
    "Hugging Face token": r"(?:hf|api_org)_[A-Za-z]{34}",
    "npm token": r"npm_[A-Za-z0-9]{36}",
    "PyPI token": r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_\-]{50,1000}",
    "SendGrid key": r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}",
    "Mailgun key": r"key-[0-9a-f]{32}",
    "DigitalOcean token": r"do[opr]_v1_[a-f0-9]{64}",
    "Telegram bot token": r"\d{8,10}:AA[A-Za-z0-9_\-]{33}",
    "Shopify token": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "Square token": r"sq0(?:atp|csp)-[A-Za-z0-9_\-]{22,43}",
    "Databricks token": r"dapi[0-9a-f]{32}(?:-\d)?",
    "Grafana token": r"gl(?:c|sa)_[A-Za-z0-9+/_]{32,400}={0,2}",
    "Doppler token": r"dp\.pt\.[A-Za-z0-9]{43}",
    "Linear key": r"lin_api_[A-Za-z0-9]{40}",
    "Vault token": r"hvs\.[A-Za-z0-9_\-]{90,300}",
}
"""Service -> form. Keys that are meant to be public (Stripe's pk_) are not among them."""
API_KEY = re.compile(rf"(?<![A-Za-z0-9_\-.])(?:{'|'.join(API_KEYS.values())})(?![A-Za-z0-9_\-+/])")
NAMED_SECRETS = re.compile(
    # The secret halves of AWS and Azure have no prefix: they count only behind their own name.
    r"(?i:aws_?secret_?(?:access_?)?key)[\"']?[ \t]{0,4}(?:=>|[:=,])[ \t]{0,4}[\"']?"
    r"([A-Za-z0-9+/]{40})(?![A-Za-z0-9+/=])"
    r"|AccountKey=([A-Za-z0-9+/]{86}==)"
)
JSON_WEB_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_\-.])(eyJ[A-Za-z0-9_\-]{10,2000})\.eyJ[A-Za-z0-9_\-]{10,8000}\.[A-Za-z0-9_\-]{16,2000}(?![\w\-])"
)
DISTINCT_CHARACTERS = 8
"""Fewer different ones are no key but the place for one, like ghp_xxxxxxxx."""


def is_random(key: str) -> bool:
    """True if a key is drawn from many characters."""
    return len(set(key[4:])) >= DISTINCT_CHARACTERS


def is_token_header(part: str) -> bool:
    """True if the first part of a JSON web token is a header (RFC 7519): an object that names the algorithm."""
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def find_keys(text: str) -> Iterator[Span]:
    """Keys and tokens."""
    found = [match.span() for match in API_KEY.finditer(text) if is_random(match[0])]
    found += [match.span(match.lastindex or 0) for match in NAMED_SECRETS.finditer(text) if is_random(match[0])]
    found += [match.span() for match in JSON_WEB_TOKEN.finditer(text) if is_token_header(match[1])]
    return without_overlaps(found)


KEY_BEGINS = re.compile(r"-----BEGIN ((?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?)-----")
MAX_KEY_LENGTH = 20_000
"""Characters between the lines of a private key; RSA of 16,384 bits takes 13,000."""
KEY_BODY = re.compile(r"[A-Za-z0-9+/=\s\\\"',:;.\-()&#<>]{64,}")
"""Base 64, the headers of an encrypted key, and the quotes, escapes and signs of the language it is written in."""
KEY_DATA = re.compile(r"[A-Za-z0-9+/]{32}")


def find_private_keys(text: str) -> Iterator[Span]:
    """PEM and PGP blocks whose body is a key and not three dots."""
    place = 0
    while begins := KEY_BEGINS.search(text, place):
        place = begins.end()
        ending = f"-----END {begins[1]}-----"
        end = text.find(ending, place, place + MAX_KEY_LENGTH + len(ending))
        if end < 0:
            continue
        if (again := text.rfind("-----BEGIN ", place, end)) >= 0:
            # The block is cut short: what ends here began later.
            place = again
        elif KEY_BODY.fullmatch(text, place, end) and KEY_DATA.search(text, place, end):
            place = end + len(ending)
            yield begins.start(), place


SECRETS = {
    "api_key": PersonalDataKind(
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}|gh[pousr]_[A-Za-z0-9]{8}|github_pat_|gl(?:pat|dt|rt|ptt|soat)-|xox[abeoprs]"
        r"|xapp-[0-9]|hooks\.slack\.com|AIza[A-Za-z0-9_\-]{8}|GOCSPX-|ya29\.|[sr]k_(?:live|test)_|whsec_|T3BlbkFJ|sk-ant-"
        r"|(?:hf|api_org)_[A-Za-z]{34}|npm_[A-Za-z0-9]{36}|pypi-AgEI|SG\.[A-Za-z0-9_\-]{22}\.|key-[0-9a-f]{32}"
        r"|do[opr]_v1_|[0-9]:AA[A-Za-z0-9_\-]{8}|shp(?:at|ca|pa|ss)_|sq0(?:atp|csp)-|dapi[0-9a-f]{8}|gl(?:c|sa)_|dp\.pt\."
        r"|lin_api_|hvs\.|aws_?secret|AWS_?SECRET|[aA]wsSecret|AccountKey=|eyJ[A-Za-z0-9_\-]{10}",
        "<API_KEY>",
        find_keys,
    ),
    "private_key": PersonalDataKind(r"PRIVATE KEY", "<PRIVATE_KEY>", find_private_keys),
}
