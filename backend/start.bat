@echo off
rem Set up what the server needs, once, and start it. Settings come from the environment and from .env.
setlocal
cd /d "%~dp0.."
if not defined PYTHON set PYTHON=py -3

if not exist .venv\Scripts\python.exe (
    %PYTHON% -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>nul || (
        echo streamforge: needs Python 3.11 or later
        pause
        exit /b 1
    )
    echo Making a virtual environment in .venv ...
    %PYTHON% -m venv .venv || exit /b 1
)

fc /b backend\requirements.txt .venv\.run >nul 2>nul || (
    echo Installing StreamForge's dependencies, about 700 MB, once ...
    .venv\Scripts\python -m pip install --progress-bar off --disable-pip-version-check --no-deps --require-hashes -r backend\requirements.txt || (
        pause
        exit /b 1
    )
    copy /y backend\requirements.txt .venv\.run >nul
)

.venv\Scripts\python -m backend.main
if errorlevel 1 pause
