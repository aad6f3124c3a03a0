"""A headless browser, spoken to in its DevTools protocol over two pipes: JSON messages that end in a null byte."""

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TEXT = """
(() => {
  const words = [];
  const visit = (node) => {
    if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) words.push(node.textContent.trim());
    if (["STYLE", "SCRIPT"].includes(node.nodeName)) return;
    if (node.shadowRoot) visit(node.shadowRoot);
    if (node.nodeName === "IFRAME" && node.contentDocument) visit(node.contentDocument);
    for (const child of node.childNodes) visit(child);
  };
  visit(document);
  return words.join("\\n");
})()
"""


class Browser:
    """One page of a browser.

    Args:
        write, read: the ends of its pipes
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._waiting = 0, b""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._call("Page.enable")

    def open(self, address: str) -> None:
        """Go to a page; one that differs in what stands behind # alone is loaded anew too."""
        self._call("Page.navigate", {"url": "about:blank"})
        self._call("Page.navigate", {"url": address})

    def evaluate(self, script: str) -> Any:
        """The value of a script."""
        result = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The page's text, through all shadow trees, once it has all the words; fails after some time."""
        end, text = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            text = self.evaluate(_TEXT)
            if all(word in text for word in words):
                return text
            time.sleep(0.3)
        missing = [word for word in words if word not in text]
        raise AssertionError(f"not on the page after {seconds} s: {missing}; there is: {text[-1000:]}")

    def screenshot(self, path: Path) -> None:
        """What is to be seen."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", {"format": "png"})["data"]))

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            self._waiting += part
        message, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """Start a browser of the Chromium family; it ends with the block. profile: an empty folder for it."""
    (to_read, write), (read, to_write) = os.pipe(), os.pipe()
    words = ["--headless", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--window-size=1500,1000"]
    words += ["--enable-unsafe-swiftshader"]  # the projector draws with WebGL, also where there is no GPU
    # The protocol's pipes have the numbers 3 and 4, which only a shell can promise.
    command = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
    process = subprocess.Popen(
        ["bash", "-c", command, program, *words, f"--user-data-dir={profile}"],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(write, read)
    finally:
        os.close(write)
        os.close(read)
        process.kill()
        process.wait()
