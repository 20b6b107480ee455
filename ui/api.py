from fastapi import APIRouter


def api_routes(bench):
    return APIRouter()
