"""What a tutorial builds: FastAPI, sse-starlette, `ChatOpenAI.astream`. `python -m bench.plain PORT`."""

import json
import os
import sys
from collections.abc import AsyncIterator
from functools import cache

import uvicorn
from fastapi import FastAPI
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr
from sse_starlette import EventSourceResponse

app = FastAPI()


class Chat(BaseModel):
    message: str
    model: str


@cache
def model(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, api_key=SecretStr("none"), base_url=os.environ["OPENAI_BASE_URL"])


@app.post("/chat")
async def chat(body: Chat) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        async for part in model(body.model).astream(body.message):
            if part.content:
                yield {"data": json.dumps({"type": "text.delta", "text": part.content})}

    return EventSourceResponse(events())


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
