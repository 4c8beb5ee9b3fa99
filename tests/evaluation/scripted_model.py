"""One server of OpenAI's interface that stands for the model and for every judge; answers come from the documents."""

import base64
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from tests.evaluation.shipped_documents import ALL


def answer_to(messages, mode):
    """What the scripted model writes, in the words of the mode; a document is known by its image's first pixel."""
    urls = [
        part["image_url"]["url"]
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    if not urls:
        return None
    image = Image.open(io.BytesIO(base64.b64decode(urls[0].partition("base64,")[2]))).convert("RGB")
    number, document, mark = image.getpixel((0, 0))
    assert mark == 7, "an image that is none of ours"
    thinking = "<think>It looks so.</think>" if mode == "thinking" else ""
    return f"{thinking}<answer>{ALL[number].answers[document]}</answer>"


def judgement_of(prompt):
    """What a judge replies to the prompts of CharXiv (JSON with a verdict per response) and MathVista (the answer)."""
    graded = re.findall(r"T(\d+):\nResponse \d+: (.*)\nGround Truth \d+: (.*)\n", prompt)
    if graded:
        reply = {}
        for number, response, truth in graded:
            reply |= {f"extract_answer_T{number}": response, f"score_T{number}": int(response == truth)}
        return json.dumps(reply)
    if "Extracted" in prompt:
        return prompt.rpartition("response:")[2].strip().splitlines()[0].strip('" ')
    raise AssertionError(f"a judge was asked what nobody scripted: {prompt[-500:]}")


class Scripted:
    """The server while a `with` block runs; `asked` holds the prompts that the model got, `judged` counts judges."""

    def __init__(self, mode):
        self.mode, self.asked, self.judged, self.errors = mode, [], 0, []

    def __enter__(self):
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    text = answer_to(body["messages"], script.mode)
                    if text is not None:
                        script.asked.append(body["messages"])
                    else:
                        content = body["messages"][-1]["content"]
                        prompt = content if isinstance(content, str) else content[0]["text"]
                        text = judgement_of(prompt)
                        script.judged += 1
                except AssertionError as error:
                    script.errors.append(str(error))
                    self.send_error(400, "unscripted")
                    return
                reply = {
                    "id": "1", "object": "chat.completion", "created": 0, "model": "scripted",
                    "choices": [{"index": 0, "finish_reason": "stop",
                                 "message": {"role": "assistant", "content": text}}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }  # fmt: skip
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
