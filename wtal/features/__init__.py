"""From video files to features: decoding, optical flow, I3D and CLIP, and files that the layouts' readers take."""
