"""Feature extraction: decoding, optical flow, I3D and CLIP, and the feature files in the layouts of wtal.data."""
