"""What a real tritonserver answers, and what the client makes of one that does not."""

import asyncio
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.inference.errors import (
    BadAnswer,
    TritonModelMissing,
    TritonRefused,
    TritonTimeout,
    TritonUnavailable,
)
from qsm_ai.inference.ports import any_free
from qsm_ai.inference.server import TritonServer
from qsm_ai.inference.triton import TritonNetwork
from qsm_ai.reconstruction.calibration import shipped_calibration

Patches = NDArray[np.float32]
Known = Callable[[Patches], Patches]


@pytest.fixture
def network(server: TritonServer) -> Iterator[TritonNetwork]:
    with TritonNetwork(server.grpc_url) as network:
        yield network


def sleepy(seconds: float, number: int = 1) -> Patches:
    """Patches over which the model `sleeper` sleeps."""
    return np.full((number, 1, 2, 2, 2), seconds, np.float32)


def metric(server: TritonServer, name: str, model: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=5) as answer:
        found = re.search(rf'^{name}\{{model="{model}".*\}} (\S+)', answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


class TestAnswers:
    def test_the_values_are_the_networks(
        self, network: TritonNetwork, patches: Patches, known: Known
    ) -> None:
        np.testing.assert_allclose(network.predict(patches), known(patches), rtol=1e-5, atol=1e-5)

    def test_every_patch_is_reported_in_the_calling_thread(
        self, network: TritonNetwork, patches: Patches
    ) -> None:
        told: list[tuple[int, int]] = []
        network.predict(patches, lambda n: told.append((n, threading.get_ident())))
        assert told == [(n, threading.get_ident()) for n in (1, 2, 3)]

    def test_the_name_says_what_ran_where(self, network: TritonNetwork, patches: Patches) -> None:
        network.predict(patches[:1])
        weights = network.name.split()[1].rstrip(",")
        assert network.name == f"qsm_vit {weights}, version 1 on Triton 2.51.0 (python)"
        assert shipped_calibration().fits(network.name)
        assert not shipped_calibration().fits(network.name.replace(weights, "0123456789ab"))

    def test_no_patch_is_no_work(self, network: TritonNetwork, patches: Patches) -> None:
        assert network.predict(patches[:0]).shape == (0, 1, 96, 96, 96)

    def test_threads_share_one_network(self, network: TritonNetwork, patches: Patches, known: Known) -> None:
        answers: dict[int, Patches] = {}

        def ask(index: int) -> None:
            answers[index] = network.predict(patches[index : index + 1])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = np.concatenate([answers[i] for i in range(3)])
        np.testing.assert_allclose(together, known(patches), rtol=1e-5, atol=1e-5)

    def test_no_more_patches_wait_on_the_server_than_agreed(self, server: TritonServer) -> None:
        with TritonNetwork(server.grpc_url, model="sleeper", max_in_flight=2) as network:
            threads = [threading.Thread(target=network.predict, args=(sleepy(0.1, 6),)) for _ in range(2)]
            for thread in threads:
                thread.start()
            waiting = []
            while any(thread.is_alive() for thread in threads):
                waiting.append(metric(server, "nv_inference_pending_request_count", "sleeper"))
                time.sleep(0.02)
        assert max(waiting) == 1  # one in work, one waiting


class TestQuestions:
    def test_patches_of_another_shape_are_not_sent(self, network: TritonNetwork, patches: Patches) -> None:
        with pytest.raises(ValueError, match=r"the network takes \(N, 6, 96, 96, 96\)"):
            network.predict(patches[:, :4])

    def test_a_volume_is_no_stack_of_patches(self, network: TritonNetwork, patches: Patches) -> None:
        with pytest.raises(ValueError, match=r"the network takes"):
            network.predict(patches[0])


class TestNobodyThere:
    def test_refused_within_seconds_with_the_mend(self, patches: Patches) -> None:
        port = any_free()
        start = time.monotonic()
        with (
            TritonNetwork(f"127.0.0.1:{port}") as network,
            pytest.raises(TritonUnavailable, match=rf"127\.0\.0\.1:{port}\. Start it"),
        ):
            network.predict(patches)
        assert time.monotonic() - start < 5

    def test_is_told_when_asked(self) -> None:
        with TritonNetwork(f"127.0.0.1:{any_free()}") as network, pytest.raises(TritonUnavailable):
            asyncio.run(network.check())

    def test_a_server_that_accepts_and_stays_silent(self, patches: Patches) -> None:
        with socket.create_server(("127.0.0.1", any_free())) as silent:
            start = time.monotonic()
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            with TritonNetwork(address, client_timeout=1.0) as network, pytest.raises(TritonTimeout):
                network.predict(patches[:1])
            with TritonNetwork(address) as network, pytest.raises((TritonUnavailable, TritonTimeout)):
                asyncio.run(network.check())
        assert time.monotonic() - start < 8

    def test_the_http_port_is_not_the_grpc_port(self, server: TritonServer, patches: Patches) -> None:
        with (
            TritonNetwork(f"127.0.0.1:{server.ports.http}", attempts=1, client_timeout=3) as network,
            pytest.raises((TritonUnavailable, TritonTimeout, TritonRefused)),
        ):
            network.predict(patches[:1])

    def test_one_that_comes_back_meanwhile_is_asked_again(
        self, server: TritonServer, patches: Patches, known: Known
    ) -> None:
        port = any_free()
        opener = threading.Timer(0.5, forward, args=(port, server.ports.grpc))
        opener.start()
        with TritonNetwork(f"127.0.0.1:{port}", attempts=6) as network:
            correction = network.predict(patches[:1])
        opener.join()
        np.testing.assert_allclose(correction, known(patches[:1]), rtol=1e-5, atol=1e-5)

    def test_a_model_that_is_not_loaded(self, server: TritonServer, patches: Patches) -> None:
        with TritonNetwork(server.grpc_url, model="qsm_unet") as network:
            with pytest.raises(TritonModelMissing, match="has not loaded qsm_unet"):
                network.predict(patches[:1])
            with pytest.raises(TritonModelMissing):
                asyncio.run(network.check())

    def test_the_loaded_model_can_be_asked(self, network: TritonNetwork) -> None:
        asyncio.run(network.check())


def forward(port: int, to: int) -> None:
    """Take one connection on ``port`` and carry its bytes to the port ``to`` and back."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        outer, _ = listener.accept()
    inner = socket.create_connection(("127.0.0.1", to))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either side may leave first
            while some := source.recv(1 << 16):
                sink.sendall(some)
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=carry, args=(inner, outer))
    back.start()
    with outer, inner:
        carry(outer, inner)
        back.join()


class TestLateAnswers:
    def test_a_late_patch_is_given_up_and_not_asked_again(self, server: TritonServer) -> None:
        asked = metric(server, "nv_inference_count", "sleeper")
        start = time.monotonic()
        with (
            TritonNetwork(server.grpc_url, model="sleeper", client_timeout=0.5) as network,
            pytest.raises(TritonTimeout, match="did not answer in time"),
        ):
            network.predict(sleepy(60.0))
        assert time.monotonic() - start < 15
        time.sleep(0.5)
        assert metric(server, "nv_inference_count", "sleeper") - asked <= 1

    def test_the_server_drops_what_nobody_waits_for(self, server: TritonServer) -> None:
        with (
            TritonNetwork(server.grpc_url, model="sleeper", client_timeout=0.3) as network,
            pytest.raises(TritonTimeout),
        ):
            network.predict(sleepy(60.0, number=3))
        with TritonNetwork(server.grpc_url, model="sleeper") as network:
            start = time.monotonic()
            assert network.predict(sleepy(0.01)).flat[0] == pytest.approx(0.02)
            assert time.monotonic() - start < 15

    def test_the_whole_call_has_a_deadline_of_its_own(self, server: TritonServer) -> None:
        with (
            TritonNetwork(server.grpc_url, model="sleeper", deadline=1.5, max_in_flight=1) as network,
            pytest.raises(TritonTimeout, match=r"had done [1-4] of 20 patches"),
        ):
            network.predict(sleepy(0.3, number=20))

    def test_what_the_listener_raises_ends_the_call(self, server: TritonServer) -> None:
        def enough(done: int) -> None:
            raise InterruptedError(f"after {done}")

        start = time.monotonic()
        with (
            TritonNetwork(server.grpc_url, model="sleeper", max_in_flight=1) as network,
            pytest.raises(InterruptedError, match="after 1"),
        ):
            network.predict(sleepy(0.3, number=50), enough)
        assert time.monotonic() - start < 5
        with TritonNetwork(server.grpc_url, model="sleeper") as network:
            network.predict(sleepy(0.01))
        assert time.monotonic() - start < 10, "the rest is cancelled on the server too"


class TestAnswersThatCannotBeRight:
    @pytest.mark.parametrize(
        ("malady", "failure", "said"),
        [
            (1, BadAnswer, "without any values"),
            (2, BadAnswer, "not finite"),
            (3, BadAnswer, r"where float32 \(1, 1, 2, 2, 2\) was due"),
            (4, TritonRefused, "it hurts"),
        ],
    )
    def test_are_not_believed(
        self, server: TritonServer, malady: int, failure: type[Exception], said: str
    ) -> None:
        with (
            TritonNetwork(server.grpc_url, model="maladies") as network,
            pytest.raises(failure, match=said),
        ):
            network.predict(np.full((1, 1, 2, 2, 2), malady, np.float32))
