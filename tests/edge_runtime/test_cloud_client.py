from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_runtime.cloud_client import CloudClient
from edge_runtime.errors import CloudError, CloudRefusedError, DigestError, MessageError
from edge_runtime.wire import PersonalizeRequest
from tests.edge_runtime.cloud_simulator import CloudSimulator, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_runtime.slots import StoredModel

REQUEST = PersonalizeRequest(base="digest", usage={"north-west": 0.5, "south-west": 0.5})


@pytest.fixture
def client(cloud: CloudSimulator) -> Iterator[CloudClient]:
    with CloudClient(cloud.url, timeout_s=10) as client:
        yield client


def test_the_base_and_a_cut_are_fetched_whole(
    client: CloudClient, cloud: CloudSimulator, base: StoredModel, west: StoredModel
):
    assert client.base() == base
    assert client.personalize(REQUEST) == west
    assert cloud.cut_requests == [REQUEST]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault.ERROR_500, CloudError, r"/v1/personalize: answered 500 .*: the search failed$"),
        (Fault.OVERLOADED, CloudError, r"answered 429 .*: no reason given$"),
        (Fault.TRUNCATED, CloudError, r"cannot be reached"),
        (Fault.GARBAGE, MessageError, r"message is"),
        (Fault.FLIPPED_BIT, DigestError, r"model: digest is"),
        (Fault.NO_MODEL, MessageError, r"/v1/personalize: the answer holds no model file"),
    ],
)
def test_every_fault_is_an_error_that_says_what_happened(
    client: CloudClient, cloud: CloudSimulator, fault: Fault, error: type[Exception], message: str
):
    cloud.faults.append(fault)

    with pytest.raises(error, match=message) as caught:
        client.personalize(REQUEST)

    assert not isinstance(caught.value, CloudRefusedError)
    assert "\n" not in str(caught.value)
    assert client.personalize(REQUEST).manifest.usage == REQUEST.usage


def test_a_refusal_is_told_from_a_failure(client: CloudClient, cloud: CloudSimulator):
    cloud.faults.append(Fault.REFUSED)

    with pytest.raises(CloudRefusedError, match=r"answered 422 .*: these classes cannot be served$"):
        client.personalize(REQUEST)


def test_a_silent_cloud_is_given_up_on(cloud: CloudSimulator):
    cloud.faults.append(Fault.STALL)

    with CloudClient(cloud.url, timeout_s=0.05) as client, pytest.raises(CloudError, match=r"no answer within 0\.05 s"):
        client.base()


def test_an_absent_cloud_is_named(client: CloudClient, cloud: CloudSimulator):
    cloud.go_away()

    with pytest.raises(CloudError, match=rf"{cloud.url}/v1/base: cannot be reached"):
        client.base()


def test_an_answer_is_not_longer_than_allowed(cloud: CloudSimulator):
    with (
        CloudClient(cloud.url, answer_bytes_max=100) as client,
        pytest.raises(CloudError, match="longer than 100 bytes"),
    ):
        client.base()


def test_a_cut_is_no_base(client: CloudClient, cloud: CloudSimulator, west: StoredModel):
    cloud.base = west

    with pytest.raises(MessageError, match="answered with a cut"):
        client.base()
