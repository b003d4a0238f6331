"""What can go wrong on the device and in the files it reads.

EdgeError
├── ModelFileError      (ValueError)   a .tflite that cannot be read, or not be what it is used for
├── PlanError           (ValueError)   a pruning plan that does not fit its base model
├── MessageError        (ValueError)   a request, manifest or answer that breaks the wire contract
├── InputError          (ValueError)   an image or tensor that the model cannot take
├── ConfigError         (ValueError)   a configuration file or option that is wrong
├── DigestError         (ValueError)   bytes that are not what their digest says
├── SignatureError      (ValueError)   a signed message whose signature is wrong
│   └── UnknownKeyError                a signed message of a key that is not trusted (any more, or yet)
└── CloudError          (ConnectionError)  the cloud is away, or answers with an error
    └── CloudRefusedError                  it understood and will not: asking again would not help
        └── BaseChangedError               it cuts another base model than the device holds

Every message says what was wrong, where, and what to do about it, on one line.
"""

from __future__ import annotations

__all__ = [
    "BaseChangedError",
    "CloudError",
    "CloudRefusedError",
    "ConfigError",
    "DigestError",
    "EdgeError",
    "InputError",
    "MessageError",
    "ModelFileError",
    "PlanError",
    "SignatureError",
    "UnknownKeyError",
]


class EdgeError(Exception):
    """Base of every error that this package raises on purpose."""


class ModelFileError(EdgeError, ValueError):
    """A .tflite file is not one, is damaged, or holds something that is not supported."""


class PlanError(EdgeError, ValueError):
    """A pruning plan names units or layers that its base model does not have, or may not lose."""


class MessageError(EdgeError, ValueError):
    """A message breaks the wire contract between device and cloud."""


class InputError(EdgeError, ValueError):
    """An image or tensor does not fit the model's input."""


class ConfigError(EdgeError, ValueError):
    """A configuration file or an option is wrong."""


class DigestError(EdgeError, ValueError):
    """Bytes do not have the digest that was promised for them."""


class SignatureError(EdgeError, ValueError):
    """A signed message is not what its key signed, or a statement about keys is not to be trusted."""


class UnknownKeyError(SignatureError):
    """A message is signed with a key that is not among the trusted ones."""


class CloudError(EdgeError, ConnectionError):
    """The cloud service cannot be reached, or refused or failed a request."""


class CloudRefusedError(CloudError):
    """The cloud service refused a request for what it asks (a 4xx status)."""


class BaseChangedError(CloudRefusedError):
    """The cloud service cuts another base model than the one asked about (status 409)."""
