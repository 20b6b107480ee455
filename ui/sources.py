from fastapi import APIRouter
def source_routes(bench): return APIRouter()
