"""Arrays every module uses: conventions, resizing, optical flow, and the choice of a backend."""
