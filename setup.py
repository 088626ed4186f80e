"""Packaging of pfstorage. The configuration of tools is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

DEVSWIFT = ["swift>=2.38.3"]
KEYSTONE = ["keystoneauth1>=5.0", "python-keystoneclient>=5.0"]
DOCS = ["sphinx>=7.2", "towncrier>=24.8"]
PACKAGE_CHECKS = ["build>=1.2", "check-wheel-contents>=0.6", "twine>=6.1"]
TEST = [
    "axe-core-python>=0.1.0",  # axe itself, as a file
    "coverage[toml]>=7.10",
    "docutils>=0.20",
    "h11>=0.16",  # another parser, to compare with
    "hypothesis>=6.100",
    "import-linter>=2.0",
    "mypy>=1.11",
    "packaging>=23",
    "pydicom>=2.4",
    "pytest>=8.0",
    "pytest-cov>=5.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "pyyaml>=6.0",
    "ruff>=0.6",
    "schemathesis>=4.30",
    "selenium>=4.20",
]

setup(
    name="pfstorage",
    version=re.search(r'"(.+)"', (HERE / "pfstorage" / "_version.py").read_text())[1],
    description="One regular JSON interface to object storage, for the data of medical imaging",
    long_description=(HERE / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    author="pfstorage developers",
    url="https://github.com/FNNDSC/pfstorage",
    project_urls={
        "Source": "https://github.com/FNNDSC/pfstorage",
        "Issues": "https://github.com/FNNDSC/pfstorage/issues",
    },
    keywords=["medical imaging", "DICOM", "ChRIS", "object storage", "OpenStack Swift", "file transfer"],
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["pfstorage", "pfstorage.*"]),
    package_data={
        "pfstorage": ["py.typed"],
        "pfstorage.server.endpoints": ["*.json"],
        "pfstorage.server.page": ["*.html", "*.css", "*.js", "*.svg"],
    },
    python_requires=">=3.10",
    install_requires=[
        "certifi",  # what requests trusts
        "legacy-cgi; python_version >= '3.13'",  # pfmisc imports the module cgi
        "multipart>=1.2",
        "pfmisc>=2.2",
        "pfurl>=2.3.0.1",
        "prometheus-client>=0.20",
        "psutil>=5.9",
        "pycurl>=7.43",  # what pfurl speaks HTTP with
        "python-swiftclient>=4.4",
        "requests>=2.32",  # what swiftclient and keystoneauth speak HTTP with
        "tqdm>=4.60",
        "urllib3>=2",  # what requests does
    ],
    extras_require={
        "devswift": DEVSWIFT,
        "keystone": KEYSTONE,
        "docs": DOCS,
        "test": TEST + DOCS + PACKAGE_CHECKS + DEVSWIFT + KEYSTONE,
    },
    entry_points={"console_scripts": ["pfstorage = pfstorage.__main__:main"]},
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Healthcare Industry",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13, 14)),
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Topic :: System :: Archiving",
        "Typing :: Typed",
    ],
)
