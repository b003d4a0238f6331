"""Which models a device takes, by what their manifests say: everything that can be known before a file is fetched.

That a manifest is genuine and new was found before (`edge_runtime.trust`); that the file is the one it names, and that
it works, is found after. A genuine manifest may still be one for another device, or of a service that has gone wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_runtime.errors import MessageError, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from edge_runtime.wire import Manifest

__all__ = ["check_base", "check_cut", "check_replaces", "takes_plan"]

# A plan takes up to 200 times its length of memory while it is read.
_PLAN_BYTES_MAX: Final = 1 << 20


def check_base(manifest: Manifest, *, file_bytes_max: int) -> None:
    """Check a base model's manifest.

    Raises
    ------
    MessageError
        It is of a cut, or of a file longer than `file_bytes_max`.
    """
    if not manifest.is_base:
        raise MessageError(f"{_name(manifest)}: is a cut, not the base model that was asked for")
    _check_bytes(manifest, file_bytes_max)


def check_cut(
    manifest: Manifest,
    base: Manifest,
    classes: Collection[str],
    *,
    rejected: Mapping[str, str],
    require_certificate: bool,
    file_bytes_max: int,
) -> None:
    """Check the manifest of a cut of `base` that was asked for `classes`.

    Parameters
    ----------
    rejected
        Digest of each cut that was rolled back -> why.

    Raises
    ------
    MessageError
        It is a base model, was not made for all these classes, is longer than `file_bytes_max`, or has a certificate
        that does not hold, or none where one is required.
    ModelFileError
        It was cut from another base, has other classes or another input, or was rolled back here before.
    """
    name = _name(manifest)
    if manifest.is_base:
        raise MessageError(f"{name}: is a base model, not the cut that was asked for")
    missing = sorted(set(classes) - manifest.usage.keys())
    if missing:
        raise MessageError(f"{name}: is a cut that was not made for {', '.join(missing)}")
    check_replaces(manifest, base)
    _check_bytes(manifest, file_bytes_max)
    if manifest.certificate is not None:
        manifest.certificate.check(manifest.digest, manifest.usage)
    elif require_certificate:
        raise MessageError(f"{name}: has no certificate, which cloud.require_certificate asks for")
    if manifest.digest in rejected:
        raise ModelFileError(f"{name}: was rolled back here before ({rejected[manifest.digest]})")


def check_replaces(cut: Manifest, base: Manifest) -> None:
    """Check that a cut can stand in for `base` without a difference to callers.

    Raises
    ------
    ModelFileError
        It was cut from another base, or has other classes or another input.
    """
    for difference, its, ours in (
        ("was cut from another base than", cut.base, base.digest),
        ("has other classes than", cut.classes, base.classes),
        ("takes another input than", cut.preprocessing, base.preprocessing),
    ):
        if its != ours:
            raise ModelFileError(
                f"{_name(cut)}: {difference} the base model {base.digest[:12]} held here: "
                f"the cloud must cut for that one"
            )


def takes_plan(manifest: Manifest) -> bool:
    """Return whether the plan is less to fetch than the file."""
    return manifest.plan is not None and manifest.plan.bytes < min(manifest.bytes, _PLAN_BYTES_MAX)


def _check_bytes(manifest: Manifest, file_bytes_max: int) -> None:
    if not 0 < manifest.bytes <= file_bytes_max:
        raise MessageError(
            f"{_name(manifest)}: has {manifest.bytes} bytes, expected 1 to download.file_bytes_max, {file_bytes_max}"
        )


def _name(manifest: Manifest) -> str:
    return f"model {manifest.digest[:12]}"
